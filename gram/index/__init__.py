"""The index folder: postings, product vectors and fields, in NumPy, memory-mapped."""
