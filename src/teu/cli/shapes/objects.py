"""Networks, images and volumes. Source: moby `api/types` of Docker 28.2."""

from __future__ import annotations

SHAPES = {
    "network.Inspect": """
        Name string
        ID=Id string
        Created time.Time
        Scope string
        Driver string
        EnableIPv4 bool
        EnableIPv6 bool
        IPAM network.IPAM
        Internal bool
        Attachable bool
        Ingress bool
        ConfigFrom network.ConfigReference
        ConfigOnly bool
        Containers map[string]network.EndpointResource
        Options map[string]string
        Labels map[string]string
        Peers []network.PeerInfo?
        Services map[string]network.ServiceInfo?""",
    "network.IPAM": "Driver string\nOptions map[string]string\nConfig []network.IPAMConfig",
    "network.IPAMConfig": """
        Subnet string?
        IPRange string?
        Gateway string?
        AuxAddress=AuxiliaryAddresses map[string]string?""",
    "network.ConfigReference": "Network string",
    "network.EndpointResource": """
        Name string
        EndpointID string
        MacAddress string
        IPv4Address string
        IPv6Address string""",
    "network.EndpointSettings": """
        IPAMConfig *network.EndpointIPAMConfig
        Links []string
        Aliases []string
        MacAddress string
        DriverOpts map[string]string
        GwPriority int
        NetworkID string
        EndpointID string
        Gateway string
        IPAddress string
        IPPrefixLen int
        IPv6Gateway string
        GlobalIPv6Address string
        GlobalIPv6PrefixLen int
        DNSNames []string""",
    "network.EndpointIPAMConfig": """
        IPv4Address string?
        IPv6Address string?
        LinkLocalIPs []string?""",
    "network.Address": "Addr string\nPrefixLen int",
    "network.PeerInfo": "Name string\nIP string",
    "network.ServiceInfo": "VIP string\nPorts []string\nLocalLBIndex int\nTasks []network.Task",
    "network.Task": """
        Name string
        EndpointID string
        EndpointIP string
        Info map[string]string""",
    "image.InspectResponse": """
        ID=Id string
        RepoTags []string
        RepoDigests []string
        Parent string
        Comment string
        Created string?
        Container string?
        ContainerConfig *container.Config?
        DockerVersion string
        Author string
        Config *v1.DockerOCIImageConfig
        Architecture string
        Variant string?
        Os string
        OsVersion string?
        Size int64
        VirtualSize int64?
        GraphDriver storage.DriverData
        RootFS image.RootFS
        Metadata image.Metadata
        Descriptor *v1.Descriptor?
        Manifests []image.ManifestSummary?""",
    "image.RootFS": "Type string?\nLayers []string?",
    "image.Metadata": "LastTagTime time.Time?",
    "image.ManifestSummary": """
        ID string
        Descriptor v1.Descriptor
        Available bool
        Size any
        Kind string
        ImageData any?
        AttestationData any?""",
    "v1.DockerOCIImageConfig": "...v1.ImageConfig\n...v1.DockerOCIImageConfigExt",
    "v1.ImageConfig": """
        User string?
        ExposedPorts map[string]struct{}?
        Env []string?
        Entrypoint []string?
        Cmd []string?
        Volumes map[string]struct{}?
        WorkingDir string?
        Labels map[string]string?
        StopSignal string?
        ArgsEscaped bool?""",
    "v1.DockerOCIImageConfigExt": """
        Healthcheck *v1.HealthcheckConfig?
        OnBuild []string?
        Shell []string?""",
    "volume.Volume": """
        ClusterVolume *volume.ClusterVolume?
        CreatedAt string?
        Driver string
        Labels map[string]string
        Mountpoint string
        Name string
        Options map[string]string
        Scope string
        Status map[string]any?
        UsageData *volume.UsageData?""",
    "volume.UsageData": "RefCount int64\nSize int64",
    "volume.ClusterVolume": """
        ID string
        Version any?
        CreatedAt time.Time?
        UpdatedAt time.Time?
        Spec any
        PublishStatus []any?
        Info any?""",
}
