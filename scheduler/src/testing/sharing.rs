//! What clients of the fakes share: holds, names, imports.

use transload_protocol::{
    ClientId, ClientMessage, Edges, GraphId, Layer, LayerIndex, RequestId, SharingAnswer,
    SharingCall, TaskGraph, TaskRange,
};

use super::Cluster;

/// Another client than the one of most tests.
pub(crate) const OTHER: ClientId = ClientId(1);

impl Cluster {
    /// The tasks of a layer of a submitted graph.
    pub(crate) fn range(&self, graph: GraphId, layer: u32) -> TaskRange {
        let compiled = self.submitted[&graph].clone().compile().expect("valid");
        let tasks = compiled.tasks_of(LayerIndex(layer));
        TaskRange {
            graph,
            first: tasks.start,
            count: tasks.end - tasks.start,
        }
    }

    pub(crate) fn share(&mut self, client: ClientId, call: SharingCall) -> RequestId {
        let fake = self.clients.get_mut(&client).expect("connected");
        let request = RequestId(fake.calls);
        fake.calls += 1;
        match call {
            SharingCall::Hold { .. } | SharingCall::Lookup { .. } => {
                fake.holds.insert(request, call.clone());
            }
            SharingCall::LetGo
            | SharingCall::Publish { .. }
            | SharingCall::Unpublish { .. }
            | SharingCall::Published
            | SharingCall::WhoHas { .. } => {}
        }
        self.tell_as(client, ClientMessage::Share { request, call });
        request
    }

    pub(crate) fn hold(&mut self, client: ClientId, tasks: TaskRange) -> RequestId {
        self.share(client, SharingCall::Hold { tasks })
    }

    pub(crate) fn publish(&mut self, client: ClientId, name: &str, tasks: TaskRange) -> RequestId {
        let call = SharingCall::Publish {
            name: name.to_owned(),
            tasks,
            replace: false,
        };
        self.share(client, call)
    }

    pub(crate) fn unpublish(&mut self, client: ClientId, name: &str) {
        let name = name.to_owned();
        self.share(client, SharingCall::Unpublish { name });
    }

    pub(crate) fn let_go(&mut self, client: ClientId, request: RequestId) {
        let fake = self.clients.get_mut(&client).expect("connected");
        fake.holds.remove(&request);
        fake.held.remove(&request);
        fake.forget();
        let call = SharingCall::LetGo;
        self.tell_as(client, ClientMessage::Share { request, call });
    }

    pub(crate) fn leave(&mut self, graph: GraphId) {
        let fake = self.clients.get_mut(&graph.client).expect("connected");
        fake.left.insert(graph);
        fake.forget();
        self.tell_as(graph.client, ClientMessage::Leave { graph });
    }

    /// The answer to a call that is no hold; or how a hold was refused, or ended.
    pub(crate) fn answer(&self, client: ClientId, request: RequestId) -> Option<&SharingAnswer> {
        let answers = self.clients[&client].shared.iter();
        let of_call = answers.rev().find(|(of, _)| *of == request);
        of_call.map(|(_, answer)| answer)
    }

    /// A graph of as many tasks as it imports, each reading one of these; and one that reads them all where `gathers`.
    pub(crate) fn importing(&self, tasks: TaskRange, gathers: bool) -> TaskGraph {
        let compiled = self.submitted[&tasks.graph].clone().compile();
        let outputs = compiled
            .expect("valid")
            .layer_of(tasks.first)
            .expect("a layer")
            .outputs;
        let mut graph = TaskGraph::new("importing");
        let imported = graph.push_import("imported", vec![tasks], outputs);
        let read = Layer::new("read", "op", tasks.count).reading(imported, Edges::OneToOne);
        let read = graph.push(read);
        graph.keep(read);
        if gathers {
            let all = Layer::new("all", "op", 1).reading(imported, Edges::Broadcast);
            let all = graph.push(all);
            graph.keep(all);
        }
        graph
    }
}
