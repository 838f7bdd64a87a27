"""Everything that makes and keeps clips: pipelines, workers, video files. Needs the extra [video]."""
