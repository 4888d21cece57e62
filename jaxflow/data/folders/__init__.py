"""Folders of arrays that jaxflow writes: pairs and latents, in shards."""
