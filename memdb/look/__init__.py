"""What pages show of a store: numbers, strongest pairs, pictures; the pages' own files are in `page`."""
