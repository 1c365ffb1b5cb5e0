"""Where the tokens of a session can live."""

from unbroken.client.stores.file import FileStore
from unbroken.client.stores.memory import MemoryStore

__all__ = ["FileStore", "MemoryStore"]
