"""PostgreSQL and Redis, each behind one asynchronous interface that also runs without an event loop."""
