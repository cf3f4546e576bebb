"""From files or arrays to normalised batches: decoding, caching, order, threads."""
