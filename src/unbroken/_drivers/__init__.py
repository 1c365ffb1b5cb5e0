"""One async shape over drivers that have a blocking and an asyncio form."""
