"""Several processes that train one model: what one of them decides, all follow."""
