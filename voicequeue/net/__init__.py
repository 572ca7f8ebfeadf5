"""Requests to addresses that somebody else has named: never into one's own network, and over in bounded time.

- `addresses`: where they may go
- `connections`: how they get there
- `lanes`: how many at once
"""
