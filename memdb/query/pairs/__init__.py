"""All pairs at once, tile by tile in bounded memory, filtered or reduced to the strongest before the next."""
