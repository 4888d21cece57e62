"""Train and sample one-step and few-step generative models in JAX."""
