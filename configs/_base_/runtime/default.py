_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['vitdense'])
default_hooks = dict(checkpoint=dict(save_best='auto', max_keep_ckpts=1))
