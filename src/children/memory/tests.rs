mod measures_its_process;

use proptest::prelude::*;

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const STATUS: &str = "Name:\tworker\nState:\tS (sleeping)\nVmHWM:\t  700000 kB\n\
    VmRSS:\t  612345 kB\nRssAnon:\t  101112 kB\nRssFile:\t  511200 kB\nRssShmem:\t      33 kB\n";

/// As Documentation/gpu and Intel's xe driver show it.
const XE: &str = "pos:\t0\nflags:\t0100002\nmnt_id:\t26\nino:\t685\ndrm-driver:\txe\n\
    drm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\ndrm-total-system:\t0\ndrm-shared-system:\t0\n\
    drm-active-system:\t0\ndrm-resident-system:\t0\ndrm-purgeable-system:\t0\n\
    drm-total-gtt:\t192 KiB\ndrm-shared-gtt:\t0\ndrm-active-gtt:\t0\ndrm-resident-gtt:\t128 KiB\n\
    drm-total-vram0:\t23 MiB\ndrm-shared-vram0:\t16 MiB\ndrm-active-vram0:\t0\n\
    drm-cycles-rcs:\t28257900\ndrm-total-cycles-rcs:\t7655183225\n";

/// As Documentation/filesystems/proc.rst shows it, with the exporter's name.
const DMA_BUF: &str = "pos:\t0\nflags:\t04002\nmnt_id:\t9\nino:\t63107\nsize:\t32768\ncount:\t2\n\
    exp_name:\tsystem-heap\nname:\tweights\n";

fn descriptors(texts: &[&str]) -> Option<u64> {
    let mut buffers = DeviceBuffers::default();
    let parsed = texts.iter().filter_map(|text| Descriptor::parse(text));
    parsed.for_each(|descriptor| buffers.add(descriptor));
    buffers.bytes()
}

#[test]
fn mapped_files_do_not_count() {
    assert_eq!(resident(STATUS), Some((101_112 * KIB, 33 * KIB)));
}

#[test]
fn a_process_without_memory_is_not_one_with_zero() {
    assert_eq!(resident("Name:\tworker\nState:\tZ (zombie)\n"), None);
    assert_eq!(resident(&STATUS.replace("RssAnon", "RssAnom")), None);
    assert_eq!(measure(u32::MAX), None);
}

#[test]
fn a_drm_client_has_its_regions_and_no_cycles() {
    // Resident where it is told, total elsewhere.
    assert_eq!(descriptors(&[XE]), Some(128 * KIB + 23 * MIB));
}

#[test]
fn older_drivers_report_memory() {
    let amdgpu = "drm-driver:\tamdgpu\ndrm-client-id:\t9\ndrm-memory-vram:\t2048 KiB\n\
        drm-memory-gtt:\t512\namd-evicted-vram:\t7 KiB\n";
    assert_eq!(descriptors(&[amdgpu]), Some(2 * MIB + 512));
}

#[test]
fn a_client_counts_once_and_two_clients_twice() {
    let other = XE.replace("drm-client-id:\t3", "drm-client-id:\t4");
    let elsewhere = XE.replace("0000:03:00.0", "0000:04:00.0");
    let one = descriptors(&[XE]).expect("known");
    assert_eq!(descriptors(&[XE, XE]), Some(one));
    assert_eq!(descriptors(&[XE, &other, XE]), Some(2 * one));
    assert_eq!(descriptors(&[XE, &elsewhere]), Some(2 * one));
}

#[test]
fn clients_without_an_id_are_not_added_up() {
    let nameless = XE.replace("drm-client-id:\t3\n", "");
    assert_eq!(descriptors(&[&nameless, &nameless]), descriptors(&[XE]));
}

#[test]
fn a_dma_buf_counts_once_and_two_twice() {
    let other = DMA_BUF.replace("63107", "63108");
    assert_eq!(descriptors(&[DMA_BUF, DMA_BUF]), Some(32 * KIB));
    assert_eq!(descriptors(&[DMA_BUF, &other]), Some(64 * KIB));
}

#[test]
fn a_buffer_that_may_be_in_both_lists_counts_once() {
    let drm = "drm-driver:\trknpu\ndrm-client-id:\t1\ndrm-resident-memory:\t32 KiB\n";
    assert_eq!(descriptors(&[drm, DMA_BUF]), Some(32 * KIB));
}

#[test]
fn what_is_not_reported_is_unknown() {
    let silent = "pos:\t0\ndrm-driver:\trknpu\ndrm-client-id:\t1\ndrm-engine-npu:\t12 ns\n";
    let pipe = "pos:\t0\nflags:\t01\nmnt_id:\t15\nino:\t4711\n";
    assert_eq!(descriptors(&[]), None);
    assert_eq!(descriptors(&[silent, pipe]), None);
    let odd_unit = "drm-driver:\tx\ndrm-total-memory:\t12 parsecs\n";
    assert_eq!(descriptors(&[odd_unit]), None);
    let zero = "drm-driver:\tx\ndrm-total-memory:\t0\n";
    assert_eq!(descriptors(&[zero]), Some(0), "the kernel says so");
}

#[test]
fn sizes_have_the_units_of_the_documentation() {
    assert_eq!(size(" 6044 KiB"), Some(6044 * KIB));
    assert_eq!(size("\t3 MiB "), Some(3 * MIB));
    assert_eq!(size("5"), Some(5));
    assert_eq!(size("18446744073709551615 KiB"), None);
    assert_eq!(size(""), None);
}

/// Text in the shape of fdinfo with anything in its values.
fn any_fdinfo() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        "drm-(driver|pdev|client-id)",
        "drm-(total|resident|memory|shared)-[a-z0-9-]{0,6}",
        "(size|ino|exp_name|count)",
        ".{0,8}",
    ];
    let value = prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        (any::<u64>(), "(KiB|MiB|GiB|ns)").prop_map(|(n, unit)| format!("{n} {unit}")),
        ".{0,12}",
    ];
    prop::collection::vec((key, "[: \t]{0,3}", value), 0..12).prop_map(|lines| {
        let lines = lines
            .iter()
            .map(|(key, colon, value)| format!("{key}{colon}{value}\n"));
        lines.collect()
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = resident(&text);
        let _ = Descriptor::parse(&text);
        let _ = size(&text);
    }

    #[test]
    fn no_set_of_descriptors_panics_or_depends_on_its_order(
        texts in prop::collection::vec(any_fdinfo(), 0..5),
    ) {
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let bytes = descriptors(&texts);
        texts.reverse();
        prop_assert_eq!(descriptors(&texts), bytes);
    }

    #[test]
    fn a_duplicate_adds_nothing(
        texts in prop::collection::vec(any_fdinfo(), 1..5),
        which in any::<prop::sample::Index>(),
    ) {
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let bytes = descriptors(&texts);
        texts.push(texts[which.index(texts.len())]);
        prop_assert_eq!(descriptors(&texts), bytes);
    }
}
