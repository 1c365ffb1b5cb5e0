"""Five small real backends that nobody wrote for this library, their dialects, and their usual defects."""
