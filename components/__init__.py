"""KFP components, one folder a stage; all logic is in rgsud_lib.stages."""
