"""Models that ship with the project: trained from nothing by the scripts beside them."""
