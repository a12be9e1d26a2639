// The calls of client-go, set to protobuf, against the cluster of a kubeconfig: see ../README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

var failed bool

func check(what string, passed bool, shown ...any) {
	if passed {
		fmt.Println("ok  ", what)
		return
	}
	failed = true
	fmt.Println("FAIL", what, shown)
}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		panic(err)
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf"
	config.QPS, config.Burst = 200, 400
	clients := kubernetes.NewForConfigOrDie(config)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	made, err := clients.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "go-"}}, metav1.CreateOptions{})
	if err != nil {
		panic(err)
	}
	namespace := made.Name
	objects(ctx, clients, namespace)
	pods(ctx, clients, namespace)
	reviews(ctx, clients, namespace)
	informed(ctx, clients, namespace)
	metadatas, err := metadata.NewForConfigOrDie(config).Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(namespace).List(ctx, metav1.ListOptions{})
	check("metadata alone", err == nil && len(metadatas.Items) > 0, err)
	lists(ctx, clients)
	err = clients.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
	check("delete", err == nil, err)
	if failed {
		os.Exit(1)
	}
}

func objects(ctx context.Context, clients kubernetes.Interface, namespace string) {
	maps := clients.CoreV1().ConfigMaps(namespace)
	created, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"a": "1"}, BinaryData: map[string][]byte{"b": {0, 255}}}, metav1.CreateOptions{})
	check("create", err == nil && created.BinaryData["b"][1] == 255 && created.UID != "", err)
	created.Data["a"] = "2"
	updated, err := maps.Update(ctx, created, metav1.UpdateOptions{})
	check("update", err == nil && updated.Data["a"] == "2", err)
	_, err = maps.Update(ctx, created, metav1.UpdateOptions{})
	check("update of an old version is a conflict", apierrors.IsConflict(err), err)
	patched, err := maps.Patch(ctx, "c", types.MergePatchType, []byte(`{"data":{"a":null}}`), metav1.PatchOptions{})
	check("merge patch", err == nil && len(patched.Data) == 0, err)
	applied, err := maps.Apply(ctx, applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"k": "v"}), metav1.ApplyOptions{FieldManager: "go"})
	check("server-side apply", err == nil && len(applied.ManagedFields) == 1, err)
	_, err = maps.Apply(ctx, applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"k": "w"}), metav1.ApplyOptions{FieldManager: "other"})
	check("a conflict of managers", apierrors.IsConflict(err), err)
	_, err = maps.Get(ctx, "none", metav1.GetOptions{})
	check("a missing object", apierrors.IsNotFound(err), err)
	one := intstr.FromInt32(1)
	_, err = clients.PolicyV1().PodDisruptionBudgets(namespace).Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "none"}}}}, metav1.CreateOptions{})
	check("int or string", err == nil, err)
	replicas := int32(0)
	labels := map[string]string{"app": "d"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "image:1"}}}}
	deployments := clients.AppsV1().Deployments(namespace)
	_, err = deployments.Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template}}, metav1.CreateOptions{})
	check("a Deployment", err == nil, err)
	scale, err := deployments.GetScale(ctx, "d", metav1.GetOptions{})
	check("its scale", err == nil && scale.Status.Selector == "app=d", err)
	if err == nil {
		scale.Spec.Replicas = 1
		scale, err = deployments.UpdateScale(ctx, "d", scale, metav1.UpdateOptions{})
		check("its scale changed", err == nil && scale.Spec.Replicas == 1, err)
	}
}

func pods(ctx context.Context, clients kubernetes.Interface, namespace string) {
	zero := int64(0)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := clients.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		check("the service account", false, err)
	}
	spec := corev1.PodSpec{SchedulerName: "nobody", TerminationGracePeriodSeconds: &zero, Containers: []corev1.Container{{Name: "c", Image: "image:1"}}}
	pod, err := clients.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: spec}, metav1.CreateOptions{})
	check("a Pod", err == nil && pod.Spec.DNSPolicy == corev1.DNSClusterFirst, err)
	err = clients.CoreV1().Pods(namespace).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p"}})
	check("its eviction", err == nil, err)
	_, err = clients.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "UP"}}, metav1.CreateOptions{})
	check("an invalid Pod", apierrors.IsInvalid(err), err)
}

func reviews(ctx context.Context, clients kubernetes.Interface, namespace string) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "get", Resource: "pods"}}}
	answered, err := clients.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	check("an access review", err == nil && answered.Status.Allowed, err)
	groups, err := clients.Discovery().ServerGroups()
	check("discovery of groups", err == nil && len(groups.Groups) > 15, err)
	_, resources, err := clients.Discovery().ServerGroupsAndResources()
	check("discovery of resources", err == nil && len(resources) > 15, err)
	document, err := clients.Discovery().OpenAPISchema()
	check("OpenAPI version 2", err == nil && len(document.Definitions.AdditionalProperties) > 500, err)
}

func informed(ctx context.Context, clients kubernetes.Interface, namespace string) {
	factory := informers.NewSharedInformerFactoryWithOptions(clients, 0, informers.WithNamespace(namespace))
	maps := factory.Core().V1().ConfigMaps()
	seen := make(chan string, 16)
	_, _ = maps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(object any) { seen <- object.(*corev1.ConfigMap).Name }})
	factory.Start(ctx.Done())
	check("an informer's cache", cache.WaitForCacheSync(ctx.Done(), maps.Informer().HasSynced))
	watcher, err := clients.CoreV1().ConfigMaps(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=w"})
	check("a watch", err == nil, err)
	_, err = clients.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "w"}}, metav1.CreateOptions{})
	check("what is watched", err == nil, err)
	if watcher != nil {
		event := <-watcher.ResultChan()
		object, _ := event.Object.(*corev1.ConfigMap)
		check("its event", event.Type == watch.Added && object != nil && object.Name == "w", event)
	}
	for name := ""; name != "w"; {
		select {
		case name = <-seen:
		case <-ctx.Done():
			check("the informer's event", false)
			return
		}
	}
	check("the informer's event", true)
}

func lists(ctx context.Context, clients kubernetes.Interface) {
	options := metav1.ListOptions{Limit: 500}
	calls := map[string]func() error{
		"pods":               func() error { _, err := clients.CoreV1().Pods("").List(ctx, options); return err },
		"nodes":              func() error { _, err := clients.CoreV1().Nodes().List(ctx, options); return err },
		"services":           func() error { _, err := clients.CoreV1().Services("").List(ctx, options); return err },
		"events":             func() error { _, err := clients.EventsV1().Events("").List(ctx, options); return err },
		"endpoint slices":    func() error { _, err := clients.DiscoveryV1().EndpointSlices("").List(ctx, options); return err },
		"leases":             func() error { _, err := clients.CoordinationV1().Leases("").List(ctx, options); return err },
		"cluster roles":      func() error { _, err := clients.RbacV1().ClusterRoles().List(ctx, options); return err },
		"stateful sets":      func() error { _, err := clients.AppsV1().StatefulSets("").List(ctx, options); return err },
		"autoscalers":        func() error { _, err := clients.AutoscalingV1().HorizontalPodAutoscalers("").List(ctx, options); return err },
		"flow schemas":       func() error { _, err := clients.FlowcontrolV1().FlowSchemas().List(ctx, options); return err },
		"storage classes":    func() error { _, err := clients.StorageV1().StorageClasses().List(ctx, options); return err },
		"priority classes":   func() error { _, err := clients.SchedulingV1().PriorityClasses().List(ctx, options); return err },
		"service ranges":     func() error { _, err := clients.NetworkingV1().ServiceCIDRs().List(ctx, options); return err },
		"resource slices":    func() error { _, err := clients.ResourceV1().ResourceSlices().List(ctx, options); return err },
		"webhooks":           func() error { _, err := clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(ctx, options); return err },
		"signing requests":   func() error { _, err := clients.CertificatesV1().CertificateSigningRequests().List(ctx, options); return err },
		"component statuses": func() error { _, err := clients.CoreV1().ComponentStatuses().List(ctx, options); return err },
	}
	for name, call := range calls {
		err := call()
		check("list of "+name, err == nil, err)
	}
}
