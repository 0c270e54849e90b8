"""From a model repository and measured plans to the objects of a cluster.

needs.py     what each model takes: CPUs, memory, GPUs, from its config.pbtxt and its files
planned.py   what a plan.json says of the settings that a model has
decide.py    one pod's resources, its replicas and the autoscaler's targets, and why
manifests.py the decisions as patches of deploy/kubernetes/base, or of deploy/kubernetes/kserve
folder.py    base and patches in one folder, whole or not at all
"""
