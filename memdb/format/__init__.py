"""What is on disk, as frozen values: names, documents, bits, subsets. No I/O."""
