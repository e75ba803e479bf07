"""One launch on several devices of a replica, exactly: its tokens (`backend.packed.division`) or rows are divided."""
