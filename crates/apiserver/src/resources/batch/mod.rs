//! The group `batch`.

pub mod cron_job;
pub mod job;
pub mod job_policy;
pub mod job_status;
