//! What the rules need to know of the workspace: packages, who depends on whom, and where our own packages lie.
//!
//! Knows nothing of the rules. Loaded from `cargo metadata`; tests write it down by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// All packages that the workspace builds with, ours and others'.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// By package id.
    pub(crate) packages: BTreeMap<String, Package>,
}

/// One package.
#[derive(Debug, Default)]
pub(crate) struct Package {
    /// As in its `Cargo.toml`.
    pub(crate) name: String,
    /// As in its `Cargo.toml`.
    pub(crate) version: String,
    /// Whether it is one of ours.
    pub(crate) is_member: bool,
    /// For ours: its folder, relative to the root.
    pub(crate) folder: String,
    /// What it depends on directly.
    pub(crate) dependencies: Vec<Dependency>,
}

/// An arrow from one package to another.
#[derive(Debug)]
pub(crate) struct Dependency {
    /// The other package's id.
    pub(crate) id: String,
    /// Whether the product needs it, not only tests or a build script.
    pub(crate) is_normal: bool,
}

impl Package {
    /// The name that rules use: without the project's prefix, and `cli` for the program.
    pub(crate) fn short_name(&self) -> String {
        match self.name.strip_prefix("transload-") {
            Some(short) => short.to_owned(),
            None if self.name == "transload" => "cli".to_owned(),
            None => self.name.clone(),
        }
    }

    /// The part of the version that must be the same for two packages to be one: `1`, or `0.3`.
    pub(crate) fn compatible_version(&self) -> String {
        let mut parts = self.version.split('.');
        let major = parts.next().unwrap_or("0");
        if major == "0" {
            format!("0.{}", parts.next().unwrap_or("0"))
        } else {
            major.to_owned()
        }
    }
}

impl Workspace {
    /// Asks cargo about the workspace that this program was built in.
    ///
    /// # Errors
    /// One sentence, where `cargo metadata` fails.
    pub(crate) fn load() -> Result<Self, String> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .exec()
            .map_err(|error| format!("`cargo metadata` failed: {error}"))?;
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let mut packages = BTreeMap::new();
        for package in &metadata.packages {
            let is_member = metadata.workspace_members.contains(&package.id);
            let folder = package
                .manifest_path
                .parent()
                .and_then(|folder| folder.strip_prefix(&metadata.workspace_root).ok())
                .map(|folder| folder.to_string());
            packages.insert(
                package.id.repr.clone(),
                Package {
                    name: package.name.to_string(),
                    version: package.version.to_string(),
                    is_member,
                    folder: folder.unwrap_or_default(),
                    dependencies: Vec::new(),
                },
            );
        }
        let resolve = metadata
            .resolve
            .ok_or("`cargo metadata` gave no dependency graph; update cargo")?;
        for node in resolve.nodes {
            let Some(package) = packages.get_mut(&node.id.repr) else {
                continue;
            };
            package.dependencies = node
                .deps
                .into_iter()
                .map(|dependency| Dependency {
                    is_normal: dependency
                        .dep_kinds
                        .iter()
                        .any(|kind| kind.kind == DependencyKind::Normal),
                    id: dependency.pkg.repr,
                })
                .collect();
        }
        Ok(Self { root, packages })
    }

    /// Our own packages, in a fixed order.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.values().filter(|package| package.is_member)
    }

    /// The packages that `package` depends on directly, with the kind of the arrow.
    pub(crate) fn direct<'a>(
        &'a self,
        package: &'a Package,
    ) -> impl Iterator<Item = (&'a Package, &'a Dependency)> {
        package
            .dependencies
            .iter()
            .filter_map(|dependency| Some((self.packages.get(&dependency.id)?, dependency)))
    }
}

#[cfg(test)]
pub(crate) mod crafted {
    //! A workspace written down by hand, for tests of the rules.

    use super::{Dependency, Package, Workspace};

    /// Members are those whose name starts with `transload`. Each entry: name, version, normal dependencies by name. A
    /// dependency may be written `name@version` where a name stands for several packages, and `dev:name` for tests only.
    pub(crate) fn workspace(packages: &[(&str, &str, &[&str])]) -> Workspace {
        let id_of = |wanted: &str| {
            let (name, version) = wanted.split_once('@').unwrap_or((wanted, ""));
            packages
                .iter()
                .find(|(n, v, _)| *n == name && (version.is_empty() || *v == version))
                .map(|(n, v, _)| format!("{n}@{v}"))
                .expect("a package that the test declares")
        };
        let packages = packages
            .iter()
            .map(|(name, version, dependencies)| {
                let dependencies = dependencies.iter().map(|dependency| {
                    let plain = dependency.strip_prefix("dev:");
                    Dependency {
                        id: id_of(plain.unwrap_or(dependency)),
                        is_normal: plain.is_none(),
                    }
                });
                let package = Package {
                    name: (*name).to_owned(),
                    version: (*version).to_owned(),
                    is_member: name.starts_with("transload"),
                    folder: name.trim_start_matches("transload-").to_owned(),
                    dependencies: dependencies.collect(),
                };
                (format!("{name}@{version}"), package)
            })
            .collect();
        Workspace {
            root: "/".into(),
            packages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Package;

    #[test]
    fn versions_are_compatible_as_cargo_sees_them() {
        let of = |version: &str| Package {
            version: version.to_owned(),
            ..Package::default()
        };
        assert_eq!(of("1.2.3").compatible_version(), "1");
        assert_eq!(of("0.9.4").compatible_version(), "0.9");
    }
}
