"""A student as a page to send: one HTML file that renders it in a browser."""
