"""From surface points to images, and the gradients of both."""
