//! What vfio-ioctls takes of the crate iommufd-ioctls, which Debian does not have: /dev/iommu, and three of its requests.
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use iommufd_bindings::{iommu_ioas_alloc, iommu_ioas_map, iommu_ioas_unmap};

pub type IommufdError = io::Error;

/// Requests of linux/iommufd.h: _IO(';', n).
const IOAS_ALLOC: libc::c_ulong = 0x3b81;
const IOAS_MAP: libc::c_ulong = 0x3b85;
const IOAS_UNMAP: libc::c_ulong = 0x3b86;

pub struct IommuFd(File);

impl IommuFd {
    pub fn new() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open("/dev/iommu").map(Self)
    }

    pub fn alloc_iommu_ioas(&self, data: &mut iommu_ioas_alloc) -> io::Result<()> {
        self.ask(IOAS_ALLOC, std::ptr::from_mut(data).cast())
    }

    pub fn map_iommu_ioas(&self, data: &iommu_ioas_map) -> io::Result<()> {
        self.ask(IOAS_MAP, std::ptr::from_ref(data).cast_mut().cast())
    }

    pub fn unmap_iommu_ioas(&self, data: &mut iommu_ioas_unmap) -> io::Result<()> {
        self.ask(IOAS_UNMAP, std::ptr::from_mut(data).cast())
    }

    fn ask(&self, request: libc::c_ulong, data: *mut libc::c_void) -> io::Result<()> {
        // SAFETY: the callers' structs are those of the requests, and say their sizes
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, data) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsRawFd for IommuFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
