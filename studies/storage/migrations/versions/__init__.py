"""One file a revision; what it says is never changed once it was released."""
