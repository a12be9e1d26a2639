//! The node agent: it runs the Pods that are bound to its node, over the container-runtime interface, and is an ordinary user of the
//! API.
//!
//! [`agent::Agent`] puts the parts together. [`pods`] gives each Pod one worker ([`pod`]); around it stand the things a Pod is made of:
//! [`env`](mod@env), [`volume`], [`image`], [`probe`], [`hook`], [`dns`], [`hosts`], [`security`], [`qos`] and [`cgroup`]. [`node`] tells the API about the node, [`server`]
//! serves logs, exec, attach and port-forward.
//!
//! The agent keeps no state of its own: what it knows it reads from the runtime's labels and from the API, so that a killed agent
//! goes on where it was. It never looks at another node's Pods, and it touches the machine only through [`xebec_cri`],
//! [`kernel`] and [`cgroup`].

pub mod agent;
pub mod cgroup;
pub mod config;
pub mod context;
pub mod dns;
pub mod env;
pub mod hook;
pub mod hosts;
mod http_get;
pub mod image;
pub mod kernel;
mod log_rotation;
pub mod node;
pub mod objects;
pub mod pod;
pub mod pods;
pub mod probe;
pub mod qos;
pub mod security;
pub mod server;
pub mod volume;

pub use agent::{Agent, Seams, StartError, run};
pub use config::{Config, RuntimeSource};
