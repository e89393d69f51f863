//! A node that gets another address, as where its Service is made anew.

use redoubt::model::node_config::{AGENT_PORT, REDIS_PORT, SENTINEL_PORT};
use redoubt::model::{Address, NodeId, NodeKind};
use tokio::net::{TcpListener, TcpStream};

use super::Layer;

impl Layer {
    /// Gives a node another address, which leads to where it listens, and tells every agent. What came by the old one goes on to
    /// be served, as established connections do when a Service is gone.
    pub async fn readdress(&mut self, id: NodeId) -> Address {
        let node = self.nodes.get_mut(&id).unwrap();
        let (network, last) = node.bind.0.rsplit_once('.').unwrap();
        let address = Address(format!("{network}.{}", last.parse::<u8>().unwrap() + 50));
        for port in [REDIS_PORT, SENTINEL_PORT, AGENT_PORT] {
            forward(&address, &node.bind, port).await;
        }
        node.address = address.clone();
        self.edit_documents(|config| {
            let addresses = match id.kind {
                NodeKind::Data => &mut config.data_nodes,
                NodeKind::Sentinel => &mut config.sentinels,
            };
            addresses.insert(id.ordinal, address.clone());
        });
        address
    }
}

/// Passes connections on until the test ends.
async fn forward(from: &Address, to: &Address, port: u16) {
    let listener = TcpListener::bind((from.0.as_str(), port)).await.unwrap();
    let to = to.0.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect((to.as_str(), port)).await {
                    // Either end may close at any time.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
}
