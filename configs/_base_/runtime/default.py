default_scope = 'mmdet'
custom_imports = dict(imports=['vitdense'])
runner_type = 'vitdense.Runner'
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='vitdense.LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='vitdense.CheckpointHook', interval=1, save_best='auto', max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    convert_checkpoint=dict(type='vitdense.ConvertCheckpointHook'),
    global_loss=dict(type='vitdense.GlobalLossHook'),
    invalid_loss=dict(type='vitdense.InvalidLossHook'),
    recent_batches=dict(type='vitdense.RecentBatchesHook'),
    start_report=dict(type='vitdense.StartReportHook'),
    progress=dict(type='vitdense.ProgressHook', interval=50),
    results=dict(type='vitdense.ResultsHook'),
    pictures=dict(type='vitdense.PicturesHook'),
    stop=dict(type='vitdense.StopHook', save_every=15),
    evaluation_files=dict(type='vitdense.EvaluationFilesHook'),
)
