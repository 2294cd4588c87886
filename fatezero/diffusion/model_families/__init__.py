"""Model families: each is one kind of network behind the protocol `diffusion.backbone.Backbone`."""
