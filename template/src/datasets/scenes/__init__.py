"""Images with boxes, outlines and class maps: one sample type, read lazily, batched for any framework."""
