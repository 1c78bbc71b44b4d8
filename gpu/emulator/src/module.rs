//! Modules: PTX texts that are loaded, their kernels and their variables.
//!
//! Rules: CUDA Driver API, 6.11 Module Management, and docs/gpu-facts.md, Modules. Binaries for real devices cannot run here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use transload_ptx::{Global, Kernel, PtxError, PtxErrorKind};

use crate::call::{Out, Text, functions, lock, put_text, say};
use crate::code::{Answer, Code};
use crate::context::{Context, current, current_even_if_faulted};
use crate::driver::Driver;
use crate::handle::Object;

/// Shared memory of a block without asking for more, and the most with (recorded).
const SHARED_BYTES: i32 = 48 << 10;
const MOST_SHARED_BYTES: i32 = 232_448;

/// A loaded module.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) context: u64,
    /// Handles of its kernels, by name.
    functions: BTreeMap<String, u64>,
    /// Addresses and sizes of its variables, by name.
    variables: Arc<Variables>,
}

type Variables = BTreeMap<String, (u64, u64)>;

/// A kernel of a module.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) context: u64,
    pub(crate) kernel: Kernel,
    /// Of its module.
    pub(crate) variables: Arc<Variables>,
    /// The number that `cuFuncGetAttribute` gives as its PTX version: that of its target.
    ptx_version: i32,
    most_dynamic_shared_bytes: AtomicI32,
}

impl Function {
    /// Shared memory that a launch may ask for.
    pub(crate) fn most_dynamic_shared_bytes(&self) -> u32 {
        let limit = self.most_dynamic_shared_bytes.load(Ordering::SeqCst);
        let own = if limit > SHARED_BYTES {
            0
        } else {
            self.kernel.static_shared_bytes()
        };
        (limit as u32).saturating_sub(own)
    }

    /// Threads of a block that a launch may ask for.
    pub(crate) fn most_threads(&self) -> u32 {
        self.kernel.max_threads().unwrap_or(1024).min(1024)
    }

    /// `CUfunction_attribute`.
    fn attribute(&self, number: u32) -> Result<i32, Code> {
        Ok(match number {
            0 => self.most_threads() as i32,
            1 => self.kernel.static_shared_bytes() as i32,
            3 => self.kernel.local_bytes() as i32,
            // Registers: a number that every block size allows, as nothing here allocates any.
            4 => 32,
            5 => self.ptx_version,
            6 => 90,
            8 => self.most_dynamic_shared_bytes.load(Ordering::SeqCst),
            9 => -1,
            // Constant memory, cache mode, clusters: none.
            2 | 7 | 10..=15 => 0,
            _ => return Err(Code::INVALID_VALUE),
        })
    }
}

/// What goes wrong when an image is loaded: a code and the compiler's words.
struct Refusal {
    code: Code,
    words: String,
}

impl From<PtxError> for Refusal {
    fn from(error: PtxError) -> Self {
        let code = match error.kind {
            PtxErrorKind::NotPtx => Code::INVALID_IMAGE,
            PtxErrorKind::UnsupportedVersion => Code::UNSUPPORTED_PTX_VERSION,
            PtxErrorKind::Syntax | PtxErrorKind::UnsupportedTarget | PtxErrorKind::NotEmulated => {
                Code::INVALID_PTX
            }
        };
        if error.kind == PtxErrorKind::NotEmulated {
            say!("a module is refused: {error}");
        }
        let PtxError { line, message, .. } = error;
        let words = format!(
            "ptxas application ptx input, line {line}; error   : {message}\nptxas fatal   : Ptx assembly aborted due to errors"
        );
        Self { code, words }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self {
            code,
            words: String::new(),
        }
    }
}

/// The text of an image, which is PTX and ends with a zero.
fn text_of(image: Text) -> Result<String, Refusal> {
    let text = image.get()?;
    // An ELF file is a cubin; `P\u{ed}U\u{ba}` begins a fat binary, whose bytes are no UTF-8.
    if text.starts_with("\u{7f}ELF") || text.starts_with("P\u{fffd}U") {
        say!("a binary for real devices was loaded: only PTX can run here, so ship PTX as well");
        return Err(Code::NO_BINARY_FOR_GPU.into());
    }
    Ok(text)
}

fn load(driver: &Driver, context: &Context, image: Text) -> Result<u64, Refusal> {
    let text = text_of(image)?;
    // Loading waits for kernels that run (docs/gpu-facts.md, surprise 3).
    crate::context::drain_device(driver, context.device());
    context.device().fault.tell()?;
    let ptx = transload_ptx::Module::parse(&text)?;
    let variables = Arc::new(place(driver, context, ptx.globals())?);
    let digits: String = ptx.target().chars().filter(char::is_ascii_digit).collect();
    let ptx_version = digits.parse().unwrap_or(0);
    let functions = ptx.kernels().map(|kernel| {
        let function = Function {
            context: context.handle(),
            kernel: kernel.clone(),
            variables: Arc::clone(&variables),
            ptx_version,
            most_dynamic_shared_bytes: AtomicI32::new(SHARED_BYTES),
        };
        (
            kernel.name().to_owned(),
            driver.handles.add(|_| Object::Function(Arc::new(function))),
        )
    });
    let module = Module {
        context: context.handle(),
        functions: functions.collect(),
        variables,
    };
    Ok(driver.handles.add(|_| Object::Module(Arc::new(module))))
}

/// Gives every variable its memory and its first bytes.
fn place(driver: &Driver, context: &Context, globals: &[Global]) -> Result<Variables, Code> {
    let mut variables = Variables::new();
    for global in globals.iter().filter(|global| global.bytes > 0) {
        let address = crate::memory::allocate(driver, context, global.bytes, true)?;
        variables.insert(global.name.clone(), (address, global.bytes));
    }
    for global in globals {
        let Some((address, bytes)) = variables.get(&global.name) else {
            continue;
        };
        let mut initial = global.initial.clone();
        initial.resize(*bytes as usize, 0);
        for relocation in &global.relocations {
            let target = variables.get(&relocation.name).map_or(0, |(address, _)| {
                address.wrapping_add_signed(relocation.addend)
            });
            if let Some(word) =
                initial.get_mut(relocation.offset as usize..relocation.offset as usize + 8)
            {
                word.copy_from_slice(&target.to_le_bytes());
            }
        }
        crate::written::mark(&driver.space, *address, *bytes, true);
        crate::copy::move_bytes(
            driver.space.host(*address),
            initial.as_ptr().expose_provenance() as u64,
            *bytes,
        );
    }
    Ok(variables)
}

/// `CUjit_option`: where the compiler's words go. The error buffer is 5, its size 6; what is no error has none (3 and 4).
fn tell(count: u32, options: Out<u32>, values: Out<u64>, words: &str) -> Answer {
    let mut buffers: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
    for index in 0..count as usize {
        buffers.insert(options.at(index).get()?, (index, values.at(index).get()?));
    }
    for (buffer, size, text) in [(3, 4, ""), (5, 6, words)] {
        let Some((place, room)) = buffers.get(&size).copied() else {
            continue;
        };
        let room = room & u64::from(u32::MAX);
        if let Some((_, start)) = buffers.get(&buffer)
            && room > 0
        {
            put_text(Out::at_address(*start), room as i64, text)?;
        }
        // The length counts no final zero, unless the text was cut (recorded).
        values.at(place).put((text.len() as u64).min(room))?;
    }
    Ok(())
}

functions! { driver;
    /// `cuModuleLoadData`.
    fn cuModuleLoadData(module: Out<u64>, image: Text) {
        let context = current()?;
        module.put(load(driver, &context, image).map_err(|refusal| refusal.code)?)
    }

    /// `cuModuleLoadDataEx`: of the options the log buffers are read.
    fn cuModuleLoadDataEx(module: Out<u64>, image: Text, count: u32, options: Out<u32>, values: Out<u64>) {
        let context = current()?;
        match load(driver, &context, image) {
            Ok(handle) => {
                tell(count, options, values, "")?;
                module.put(handle)
            }
            Err(refusal) => {
                tell(count, options, values, &refusal.words)?;
                Err(refusal.code)
            }
        }
    }

    /// `cuModuleLoad`: from a file.
    fn cuModuleLoad(module: Out<u64>, path: Text) {
        let context = current()?;
        let bytes = std::fs::read(path.get()?).map_err(|_| Code::FILE_NOT_FOUND)?;
        let image = std::ffi::CString::new(bytes.split(|byte| *byte == 0).next().unwrap_or_default());
        let image = image.map_err(|_| Code::INVALID_IMAGE)?;
        module.put(load(driver, &context, Text::of(&image)).map_err(|refusal| refusal.code)?)
    }

    /// `cuModuleUnload`: waits for kernels that run.
    fn cuModuleUnload(module: u64) {
        let module = driver.handles.module(module)?;
        let context = current()?;
        crate::context::drain_device(driver, context.device());
        context.device().fault.tell()?;
        driver.handles.remove_all(|object| match object {
            Object::Module(other) => Arc::ptr_eq(other, &module),
            Object::Function(function) => Arc::ptr_eq(&function.variables, &module.variables),
            _ => false,
        });
        for (address, _) in module.variables.values() {
            let removed = lock(&driver.places).remove(*address);
            if let Some(place) = removed {
                crate::memory::free(driver, place);
            }
        }
        Ok(())
    }

    /// `cuModuleGetFunction`: the module is judged before the context.
    fn cuModuleGetFunction(function: Out<u64>, module: u64, name: Text) {
        let module = driver.handles.module(module)?;
        let name = name.get()?;
        current_even_if_faulted()?;
        if name.is_empty() {
            return Err(Code::INVALID_VALUE);
        }
        function.put(*module.functions.get(&name).ok_or(Code::NOT_FOUND)?)
    }

    /// `cuModuleGetGlobal`: a variable is device memory that cannot be freed.
    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<u64>, module: u64, name: Text) {
        let module = driver.handles.module(module)?;
        let (start, size) = module.variables.get(&name.get()?).copied().ok_or(Code::NOT_FOUND)?;
        address.put_if_wanted(start);
        bytes.put_if_wanted(size);
        Ok(())
    }

    /// `cuFuncGetAttribute`.
    fn cuFuncGetAttribute(value: Out<i32>, number: u32, function: u64) {
        value.put(driver.handles.function(function)?.attribute(number)?)
    }

    /// `cuFuncSetAttribute`: dynamic shared memory up to what a block can have.
    fn cuFuncSetAttribute(function: u64, number: u32, value: i32) {
        let function = driver.handles.function(function)?;
        match number {
            8 if (0..=MOST_SHARED_BYTES - function.kernel.static_shared_bytes() as i32).contains(&value) => {
                function.most_dynamic_shared_bytes.store(value, Ordering::SeqCst);
                Ok(())
            }
            // The carve-out is a wish.
            9 if (-1..=100).contains(&value) => Ok(()),
            _ => Err(Code::INVALID_VALUE),
        }
    }

    /// `cuFuncSetCacheConfig`: a wish.
    fn cuFuncSetCacheConfig(function: u64, _config: u32) {
        driver.handles.function(function).map(|_| ())
    }
}
