"""The job page for people who operate the queue. Rendered on the server; usable without JavaScript."""
