"""Pictures with boxes and masks: annotation files, datasets of them, and how they become a detector's input."""
