"""Files, images, sizes and text; nothing here knows of detection."""
