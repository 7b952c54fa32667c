"""What each page shows, as plain JSON: made here, drawn in the browser."""
