"""Where a network looks and what it makes of an image, as figures; `internimage.visualization` has all their names."""
