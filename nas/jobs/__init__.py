"""What each command does: joins the packages below and returns plain values to print."""
