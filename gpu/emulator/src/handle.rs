//! Handles: numbers that C programs hold for contexts, streams, events and the like.
//!
//! A handle is never used again and is of one kind, so that a wrong or a stale one is always seen; hardware checks less.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::call::lock;
use crate::code::Code;
use crate::context::Context;
use crate::event::Event;
use crate::module::{Function, Module};
use crate::pool::Pool;
use crate::stream::Stream;
use crate::virtual_memory::Physical;

/// What a handle can mean.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Context(Arc<Context>),
    Stream(Arc<Stream>),
    Event(Arc<Event>),
    Pool(Arc<Pool>),
    Physical(Arc<Physical>),
    Module(Arc<Module>),
    Function(Arc<Function>),
}

/// All handles of the process.
#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    made: u64,
    objects: BTreeMap<u64, Object>,
}

/// The first handle, above the numbers that mean default streams.
const FIRST: u64 = 0x1000;
/// Handles look like aligned pointers.
const STEP: u64 = 0x10;

/// Declares how objects of one kind are found and removed.
macro_rules! kinds {
    ($($find:ident, $remove:ident, $variant:ident($object:ty), $code:ident;)*) => {
        #[allow(dead_code, reason = "kinds that go with another, as functions with their module, are not removed one by one")]
        impl Handles {
            $(
                #[doc = concat!("The object behind a handle; `", stringify!($code), "` where it is none of this kind.")]
                pub(crate) fn $find(&self, handle: u64) -> Result<Arc<$object>, Code> {
                    match lock(&self.0).objects.get(&handle) {
                        Some(Object::$variant(object)) => Ok(Arc::clone(object)),
                        _ => Err(Code::$code),
                    }
                }

                /// The same, and the handle means nothing afterwards.
                pub(crate) fn $remove(&self, handle: u64) -> Result<Arc<$object>, Code> {
                    let object = self.$find(handle)?;
                    lock(&self.0).objects.remove(&handle);
                    Ok(object)
                }
            )*
        }
    };
}

kinds! {
    context, remove_context, Context(Context), INVALID_CONTEXT;
    stream, remove_stream, Stream(Stream), INVALID_HANDLE;
    event, remove_event, Event(Event), INVALID_HANDLE;
    pool, remove_pool, Pool(Pool), INVALID_VALUE;
    module, remove_module, Module(Module), INVALID_HANDLE;
    function, remove_function, Function(Function), INVALID_HANDLE;
    physical, remove_physical, Physical(Physical), INVALID_VALUE;
}

impl Object {
    /// Whether it goes with the context of this handle. Pools and memory without an address belong to none.
    pub(crate) fn is_of(&self, context: u64) -> bool {
        match self {
            Self::Stream(stream) => stream.context == context,
            Self::Event(event) => event.context == context,
            Self::Module(module) => module.context == context,
            Self::Function(function) => function.context == context,
            Self::Context(_) | Self::Pool(_) | Self::Physical(_) => false,
        }
    }
}

impl Handles {
    /// All contexts.
    pub(crate) fn contexts(&self) -> Vec<Arc<Context>> {
        let all = lock(&self.0);
        all.objects
            .values()
            .filter_map(|object| {
                if let Object::Context(context) = object {
                    Some(Arc::clone(context))
                } else {
                    None
                }
            })
            .collect()
    }

    /// All pools.
    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        let all = lock(&self.0);
        all.objects
            .values()
            .filter_map(|object| {
                if let Object::Pool(pool) = object {
                    Some(Arc::clone(pool))
                } else {
                    None
                }
            })
            .collect()
    }

    /// A new handle, which `object` is made with.
    pub(crate) fn add(&self, object: impl FnOnce(u64) -> Object) -> u64 {
        let mut table = lock(&self.0);
        let handle = FIRST + table.made * STEP;
        table.made += 1;
        let object = object(handle);
        table.objects.insert(handle, object);
        handle
    }

    /// Removes all handles whose objects `goes` names: those of a context that ends.
    pub(crate) fn remove_all(&self, goes: impl Fn(&Object) -> bool) {
        lock(&self.0).objects.retain(|_, object| !goes(object));
    }
}
