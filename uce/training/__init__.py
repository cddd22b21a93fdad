"""Training encoders: cells of a manifest in, a model folder out. `uce.training.loop.pretrain` runs it all."""
