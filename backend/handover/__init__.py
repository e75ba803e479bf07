"""A request that goes on in another process: its pipeline runs again there, with the answers that it had here."""
