"""One launch on several devices of a replica, exactly: its tokens, or its rows, are divided among them."""
