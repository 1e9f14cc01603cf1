"""The published experiments: what every file must resolve to."""

_TINY = {
    "data": "data.cifar10:CIFAR10", "batch_size": 512, "test_batch_size": 512, "workers": 8, "lr": 0.1,
    "lr_scheduler": "multistep", "multistep_lr_milestones": [80, 120], "multistep_lr_gamma": 0.1,
    "optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "num_epochs": 160, "output_size": 10,
    "image_size": 32, "in_channels": 3, "topk": [1, 5], "seed": 1996, "prune_rate": 0.95, "dim": 800,
    "downsample_dim": 32, "feature_dim": 100, "layers": 5, "save_dir": "./checkpoints",
    "log_dir": "./runs", "skip_profiling": True,
}  # fmt: skip
_TINY_MODELS = {
    "static": ("StaticNeuralGraph", "static"),
    "discrete_time": ("DiscreteTimeNeuralGraph", "discrete_time"),
    "continuous_time": ("ContinuousTimeNeuralGraph", "continuous"),
}
_SMALL_SCALE = {
    f"apps/small_scale/{name}_{suffix}.yml": {
        **_TINY, "model": f"models.graphs.neuralgraph:{model}", "setting": setting, "graph": graph
    }
    for name, (model, setting) in _TINY_MODELS.items()
    for suffix, graph in (("dnw", "dnw"), ("random_graph", "random"))
}  # fmt: skip

_METHODS = {
    "model": "models.graphs.mobilenetv1like:MobileNetV1Like", "data": "data.cifar10:CIFAR10",
    "batch_size": 128, "lr": 0.1, "lr_scheduler": "cosine", "momentum": 0.9, "weight_decay": 1e-4,
    "num_epochs": 160, "image_size": 32, "output_size": 10, "prune_rate": 0.775, "small": False,
    "use_graph": None, "use_init": None,
}  # fmt: skip
_METHOD = {
    "complete_graph": {"graph": "complete", "prune_rate": 0.0},
    "dnw_x225": {"graph": "dnw"},
    "dnw_no_update_x225": {"graph": "dnw_no_update"},
    "random_graph_x225": {"graph": "random", "setting": "static"},
    "td_x225": {"graph": "td", "rho": 0.95},
    "reg_td_x225": {"graph": "reg_td", "rho": 0.95},
    "ft_x225": {"graph": "fine_tune", "lr": 0.01, "use_graph": "./saved/complete_final.pt"},
    "lottery_one_shot_x225": {
        "graph": "fine_tune",
        "use_graph": "./saved/complete_final.pt",
        "use_init": "./saved/complete_init.pt",
    },
    "x25": {"model": "models.basic.mobilenetv1cifar:MobileNetV1CIFAR", "width_mult": 0.25},
}
_MEDIUM_SCALE = {
    f"apps/medium_scale/mobilenetv1_{name}.yml": {**_METHODS, **own} for name, own in _METHOD.items()
}

_IMAGENET = {
    "model": "models.graphs.mobilenetv1like:MobileNetV1Like", "data": "data.imagenet:ImageNet",
    "batch_size": 512, "workers": 32, "lr": 0.1, "lr_scheduler": "cosine", "momentum": 0.9,
    "weight_decay": 5e-5, "num_epochs": 250, "output_size": 1000, "image_size": 224,
    "save_dir": "./imagenet_checkpoints", "log_dir": "./imagenet_runs", "setting": "static",
    "skip_profiling": False,
}  # fmt: skip
_GRAPH = {
    "dnw_small_x15": ("dnw", 0.85, True),
    "dnw_small_x225": ("dnw", 0.775, True),
    "dnw_x225": ("dnw", 0.775, False),
    "dnw_x3": ("dnw", 0.7, False),
    "dnw_x49": ("dnw", 0.51, False),
    "random_graph_x225": ("random", 0.775, False),
    "random_graph_x49": ("random", 0.49, False),
}
_LARGE_SCALE = {
    f"apps/large_scale/mobilenetv1_{name}.yml": {
        **_IMAGENET, "graph": graph, "prune_rate": rate, "small": small
    }
    for name, (graph, rate, small) in _GRAPH.items()
}  # fmt: skip

_RESNET = {
    "model": "models.sparse_resnet:SparseResNet", "data": "data.imagenet:ImageNet", "batch_size": 256,
    "lr": 0.256, "lr_scheduler": "epoch_cosine", "warmup": 5, "momentum": 0.875, "weight_decay": 2**-15,
    "norm_weight_decay": False, "label_smoothing": 0.1, "mixup": 0.0, "num_epochs": 100,
    "image_size": 224, "output_size": 1000,
}  # fmt: skip
_LAYERS = {
    "dense": {"prune_rate": 0.0, "model_args": {"arch": "resnet50"}},
    "allsparse10": {"graph": "dnw", "prune_rate": 0.9, "model_args": {"arch": "resnet50"}},
    "ignorefirst10": {
        "graph": "dnw",
        "prune_rate": 0.9,
        "model_args": {"arch": "resnet50", "exclude": ["conv1"]},
    },
    "tdsparse10": {"graph": "td", "prune_rate": 0.9, "rho": 0.9, "model_args": {"arch": "resnet50"}},
}
_RESNETS = {f"apps/resnet/resnet50_{name}.yml": {**_RESNET, **own} for name, own in _LAYERS.items()}

PUBLISHED = {**_SMALL_SCALE, **_MEDIUM_SCALE, **_LARGE_SCALE, **_RESNETS}
