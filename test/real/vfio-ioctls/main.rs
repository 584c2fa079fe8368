//! Cloud Hypervisor's calls on a VFIO device, in its order, by the crate that it makes them with, vfio-ioctls: with KVM's device for
//! VFIO if there is one, and without a guest.
//!
//! `client group|cdev save DEVICE FILE` opens a device with `dma=` by its directory in sysfs, as pci/src/vfio.rs of Cloud Hypervisor (ae44c29, August 2026)
//! does, uses it as a guest would, and saves its state; `client ... restore ...` loads it. Both print what they have seen, a line each, and
//! what vfio-ioctls logs. Functions that are named without a file are in pci/src/vfio.rs.
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iommufd_ioctls::IommuFd;
use kvm_bindings::{kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO};
use kvm_ioctls::Kvm;
use vfio_bindings::bindings::vfio::*;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioDeviceFd, VfioIommufd, VfioOps, VfioRegionInfoCap};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

const COMMAND: u64 = 0x04;
const STATUS: u64 = 0x06;
const BARS: u64 = 0x10;
const ROM: u64 = 0x30;
const CAPABILITIES: u64 = 0x34;
const MSIX: u8 = 0x11;
const PAGE: u64 = 4096;
/// Where the guest's memory is: below the PCI hole, and above 4 GiB. Nobody touches most of it.
const MEMORY: [(GuestAddress, usize); 2] = [(GuestAddress(0), 64 << 20), (GuestAddress(4 << 30), 8 << 30)];
/// Where the BARs are put.
const HOLE: u64 = 0xc000_0000;

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Warn
    }
    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            println!("{}: {}", record.level(), record.args());
        }
    }
    fn flush(&self) {}
}

/// The device as VfioCommon has it: config space by reads of 1, 2 and 4 bytes, all else by its regions.
struct Vmm {
    device: VfioDevice,
    ops: Arc<dyn VfioOps>,
    takes_bars: bool,
    intx: Option<EventFd>,
    bars: Vec<Bar>,
}

/// A BAR as it was sized by writing ones, and its mapping.
struct Bar {
    index: u32,
    address: u64,
    size: u64,
    mapping: Option<*mut u8>,
}

impl Vmm {
    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut data = [0; N];
        self.device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut data, at);
        data
    }
    fn read_byte(&self, at: u64) -> u8 {
        self.read::<1>(at)[0]
    }
    fn read_word(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at))
    }
    fn read_dword(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.read(at))
    }
    fn write(&self, at: u64, data: &[u8]) {
        self.device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, data, at);
    }

    /// DeviceManager::add_vfio_device(), VfioPciDevice::new() and VfioCommon::new().
    fn open(how: &str, path: &Path) -> Self {
        let ops: Arc<dyn VfioOps> = match how {
            "group" => Arc::new(VfioContainer::new(kvm_device()).expect("a container")),
            "cdev" => {
                let iommufd = Arc::new(IommuFd::new().expect("/dev/iommu"));
                Arc::new(VfioIommufd::new(iommufd, None, kvm_device()).expect("an ioas"))
            }
            _ => panic!("neither group nor cdev"),
        };
        let device = VfioDevice::new(path, ops.clone()).expect("a device");
        device.reset();
        Vmm { device, ops, takes_bars: how == "group", intx: None, bars: Vec::new() }
    }

    /// VfioCommon::parse_capabilities(): where MSI and MSI-X are.
    fn capabilities(&self) -> Vec<(u8, u8)> {
        let mut found = Vec::new();
        if self.read_word(STATUS) & 0x10 == 0 {
            return found;
        }
        let mut at = self.read_byte(CAPABILITIES) & 0xfc;
        while at != 0 {
            found.push((self.read_byte(at.into()), at));
            let next = self.read_byte(u64::from(at) + 1) & 0xfc;
            if next == at {
                break;
            }
            at = next;
        }
        found
    }

    /// VfioCommon::enable_intx()
    fn enable_intx(&mut self) {
        if self.device.get_irq_info(VFIO_PCI_INTX_IRQ_INDEX).map_or(0, |irq| irq.count) == 0 {
            return;
        }
        let intx = EventFd::new(EFD_NONBLOCK).unwrap();
        self.device.enable_irq(VFIO_PCI_INTX_IRQ_INDEX, vec![&intx]).expect("INTx");
        self.intx = Some(intx);
    }

    fn disable_intx(&mut self) {
        if self.intx.take().is_some() {
            self.device.disable_irq(VFIO_PCI_INTX_IRQ_INDEX).expect("no INTx");
        }
    }

    /// VfioCommon::allocate_bars(): of the ROM too, whose register is another.
    fn size_bars(&mut self) {
        let mut index = VFIO_PCI_BAR0_REGION_INDEX;
        let mut address = HOLE;
        while index < VFIO_PCI_CONFIG_REGION_INDEX {
            let at = if index == VFIO_PCI_ROM_REGION_INDEX { ROM } else { BARS + u64::from(index) * 4 };
            let flags = self.read_dword(at);
            let is_rom = index == VFIO_PCI_ROM_REGION_INDEX;
            let is_64bit = !is_rom && flags & 4 != 0;
            self.write(at, &u32::MAX.to_le_bytes());
            let lower = self.read_dword(at) & !0xf;
            let mut ones = u64::from(lower) | 0xffff_ffff_0000_0000;
            if is_64bit {
                self.write(at + 4, &u32::MAX.to_le_bytes());
                ones = u64::from(self.read_dword(at + 4)) << 32 | u64::from(lower);
            }
            if lower != 0 || (is_64bit && ones != 0) {
                let size = (!ones).wrapping_add(1);
                assert_eq!(size, self.device.get_region_size(index), "the size of region {index}");
                address = (address + size - 1) & !(size - 1);
                self.bars.push(Bar { index, address, size, mapping: None });
                address += size;
            } else {
                assert_eq!(self.device.get_region_size(index), 0, "the size of region {index}");
            }
            index += if is_64bit { 2 } else { 1 };
        }
    }

    /// VfioPciDevice::map_mmio_regions(), with p2p_dma: each mapping is mapped for DMA, too.
    fn map_bars(&mut self, msix_bar: Option<u32>) {
        for bar in &mut self.bars {
            let flags = self.device.get_region_flags(bar.index);
            if flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
                continue;
            }
            let caps = self.device.get_region_caps(bar.index);
            if msix_bar == Some(bar.index) && !caps.contains(&VfioRegionInfoCap::MsixMappable) {
                continue;
            }
            let mut prot = 0;
            if flags & VFIO_REGION_INFO_FLAG_READ != 0 {
                prot |= libc::PROT_READ;
            }
            if flags & VFIO_REGION_INFO_FLAG_WRITE != 0 {
                prot |= libc::PROT_WRITE;
            }
            let offset = self.device.get_region_offset(bar.index) as libc::off_t;
            let size = bar.size as usize;
            // SAFETY: a new mapping of a file's bytes, which is unmapped in unmap_bars()
            let at = unsafe { libc::mmap(std::ptr::null_mut(), size, prot, libc::MAP_SHARED, self.device.as_raw_fd(), offset) };
            assert_ne!(at, libc::MAP_FAILED, "a mapping of BAR{}", bar.index);
            // SAFETY: that mapping
            let mapped = unsafe { self.ops.vfio_dma_map(bar.address, size, at.cast()) };
            assert_eq!(mapped.is_ok(), self.takes_bars, "a BAR mapped for DMA"); // /dev/iommu takes none
            bar.mapping = Some(at.cast());
        }
    }

    /// VfioPciDevice::unmap_mmio_regions()
    fn unmap_bars(&mut self) {
        for bar in &mut self.bars {
            if let Some(at) = bar.mapping.take() {
                if self.takes_bars {
                    self.ops.vfio_dma_unmap(bar.address, bar.size as usize).expect("a BAR unmapped for DMA");
                }
                // SAFETY: mapped by map_bars()
                assert_eq!(unsafe { libc::munmap(at.cast(), bar.size as usize) }, 0);
            }
        }
    }

    fn bar0(&self) -> &mut [u32] {
        let bar = &self.bars[0];
        // SAFETY: mapped by map_bars(), and used by nobody else here
        unsafe { std::slice::from_raw_parts_mut(bar.mapping.expect("BAR0 is mapped").cast(), bar.size as usize / 4) }
    }

    /// VfioCommon::update_msi_capabilities() and its like for MSI-X: INTx goes before, and comes back. Each message is triggered once.
    fn messages(&mut self, index: u32, name: &str) {
        let count = self.device.get_irq_info(index).map_or(0, |irq| irq.count);
        assert!(count > 0, "no {name}");
        self.disable_intx();
        let fds: Vec<EventFd> = (0..count).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
        self.device.enable_irq(index, fds.iter().collect()).expect(name);
        for (vector, fd) in fds.iter().enumerate() {
            assert!(fd.read().is_err(), "{name} {vector} came early");
            self.device.trigger_irq(index, vector as u32).expect(name);
            assert_eq!(fd.read().ok(), Some(1), "{name} {vector}");
        }
        self.device.disable_irq(index).expect(name);
        self.enable_intx();
        println!("{count} of {name}");
    }

    fn set_state(&self, state: u32) -> Option<File> {
        self.device.set_migration_state(state).unwrap_or_else(|error| panic!("state {state}: {error}"))
    }
}

/// KVM's, which is told of groups and devices; none without KVM, or where it has none.
fn kvm_device() -> Option<Arc<VfioDeviceFd>> {
    let mut device = kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, ..Default::default() };
    let fd = Kvm::new().and_then(|kvm| kvm.create_vm()).and_then(|vm| vm.create_device(&mut device)).ok()?;
    Some(Arc::new(VfioDeviceFd::new_from_kvm(fd)))
}

/// Where the device writes to, as its `dma-at=` says: 16 pages.
const DMA: u64 = 5 << 30;

/// Waits for a record of the device's in the guest's memory.
fn wait_for_dma(memory: &GuestMemoryMmap, address: u64) {
    let end = Instant::now() + Duration::from_secs(60);
    let mut bytes = [0; 8];
    while &bytes != b"vfio-dma" {
        assert!(Instant::now() < end, "the device writes nothing");
        std::thread::sleep(Duration::from_millis(1));
        for page in 0..16 {
            memory.read_slice(&mut bytes, GuestAddress(address + page * PAGE)).unwrap();
            if &bytes == b"vfio-dma" {
                return;
            }
        }
    }
}

/// What BAR0 is filled with.
fn pattern(n: usize) -> u32 {
    (n as u32).wrapping_mul(2_654_435_761)
}

fn main() {
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let args: Vec<String> = std::env::args().collect();
    let [_, how, mode, path, file] = args.as_slice() else {
        panic!("usage: client group|cdev save|restore DEVICE FILE")
    };
    let mut vmm = Vmm::open(how, Path::new(path));
    let capabilities = vmm.capabilities();
    println!("capabilities {:?}", capabilities.iter().map(|(id, _)| id).collect::<Vec<_>>());
    vmm.enable_intx();
    let flags = vmm.device.query_migration_support().expect("migration flags").expect("migration");
    println!("migration flags {flags}");
    vmm.size_bars();
    // VfioCommon::parse_msix_capabilities(): control, table, pending bits
    let msix = capabilities.iter().find(|(id, _)| *id == MSIX).map(|(_, at)| u64::from(*at));
    let table = msix.map(|at| (vmm.read_word(at + 2), vmm.read_dword(at + 4), vmm.read_dword(at + 8)));
    if let Some((control, _, _)) = table {
        let count = vmm.device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).map_or(0, |irq| irq.count);
        assert_eq!(u32::from(control & 0x7ff) + 1, count, "messages of MSI-X");
    }

    // DeviceManager: the guest's memory is mapped once there is a device
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&MEMORY).expect("memory");
    for region in memory.iter() {
        let at = region.get_host_address(MemoryRegionAddress(0)).unwrap();
        // SAFETY: `memory` lives until it is unmapped below, and there are no references to what is in it
        let mapped = unsafe { vmm.ops.vfio_dma_map(region.start_addr().raw_value(), region.len() as usize, at) };
        mapped.expect("the guest's memory mapped for DMA");
    }
    if mode == "restore" {
        // VfioCommon::load_migration_data(), in set_state()
        let mut state = Vec::new();
        File::open(file).unwrap().read_to_end(&mut state).unwrap();
        let mut data = vmm.set_state(vfio_device_mig_state_VFIO_DEVICE_STATE_RESUMING).expect("a data fd");
        data.write_all(&state).expect("the state");
    }
    // VfioCommon::sync_command_and_interrupts(), or the guest's driver
    vmm.write(COMMAND, &6u16.to_le_bytes());
    assert_eq!(vmm.read_word(COMMAND) & 6, 6, "COMMAND");
    vmm.map_bars(table.map(|(_, table, _)| table & 7));
    if mode == "restore" {
        vmm.set_state(vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING); // VfioPciDevice::resume()
        assert!(vmm.bar0().iter().enumerate().all(|(n, word)| *word == pattern(n)), "another memory");
        println!("restored");
    } else {
        for (n, word) in vmm.bar0().iter_mut().enumerate() {
            *word = pattern(n);
        }
        vmm.messages(VFIO_PCI_MSI_IRQ_INDEX, "MSI");
        vmm.messages(VFIO_PCI_MSIX_IRQ_INDEX, "MSI-X");
    }
    wait_for_dma(&memory, DMA);
    println!("written to by DMA");
    if mode == "save" {
        // VfioPciDevice::pause(), then VfioCommon::save_migration_data()
        vmm.set_state(vfio_device_mig_state_VFIO_DEVICE_STATE_STOP);
        let mut data = vmm.set_state(vfio_device_mig_state_VFIO_DEVICE_STATE_STOP_COPY).expect("a data fd");
        let mut state = Vec::new();
        data.read_to_end(&mut state).expect("the state");
        drop(data);
        vmm.set_state(vfio_device_mig_state_VFIO_DEVICE_STATE_STOP);
        File::create(file).unwrap().write_all(&state).unwrap();
        println!("saved {} bytes", state.len());
    }
    // VfioPciDevice::drop(), VfioDevice::drop(): the group leaves the container when its device is closed
    vmm.unmap_bars();
    vmm.disable_intx();
    for region in memory.iter() {
        let size = region.len() as usize;
        vmm.ops.vfio_dma_unmap(region.start_addr().raw_value(), size).expect("the guest's memory unmapped");
    }
    drop(vmm);
    println!("closed");
}
