"""Floor 3: reads what other annotation tools write, to make COCO files of it."""
