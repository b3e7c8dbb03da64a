"""The rooms of one request: its texts taken in, the cache surveyed, long texts expanded, the answer put together."""
