"""The annotation formats: each module reads a folder into `Scenes`, each writer writes them."""
