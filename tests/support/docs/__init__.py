"""The code blocks of the documentation: collect them, run them, and compare what they print."""
