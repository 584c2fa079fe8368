//! What vfio-ioctls takes of the crate iommufd-bindings, which Debian does not have: structs and flags of linux/iommufd.h.
#![allow(non_camel_case_types, non_upper_case_globals)]

#[repr(C)]
pub struct iommu_ioas_alloc {
    pub size: u32,
    pub flags: u32,
    pub out_ioas_id: u32,
}

#[repr(C)]
pub struct iommu_ioas_map {
    pub size: u32,
    pub flags: u32,
    pub ioas_id: u32,
    pub __reserved: u32,
    pub user_va: u64,
    pub length: u64,
    pub iova: u64,
}

#[repr(C)]
pub struct iommu_ioas_unmap {
    pub size: u32,
    pub ioas_id: u32,
    pub iova: u64,
    pub length: u64,
}

pub const iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA: u32 = 1;
pub const iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE: u32 = 2;
pub const iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE: u32 = 4;
