"""Sub-commands of ``torchgeo-caco``, a module each: ``add_arguments(parser)`` and ``run(args)``."""
